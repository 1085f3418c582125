"""What the site is: hosts.toml found, read, judged and edited. Nothing here opens a connection."""
