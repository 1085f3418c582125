"""What has changed on machines: generations, drift, history; and the site's own revision."""
