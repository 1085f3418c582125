"""Throwaway Debian machines on this computer: a replica of a site, its DNS, and a stranger outside.

    from mailops.lab import replica
    hosts_file = replica.up(Path("hosts.toml"), "lab", print)

Machines are systemd-nspawn containers on one bridge without a way out; see `running`.

Nothing of a real site is touched, and nothing outside of this room needs it but the tasks, tests and benchmarks.
"""
