"""The one machine, with the login that mailops has. Read by pyinfra."""

import json
import os

with open(os.environ["BENCH_DESIRED"]) as file:
    desired = json.load(file)

mail = [
    (
        desired["address"],
        {
            "ssh_user": desired["user"],
            "ssh_key": desired["identity"],
            "ssh_known_hosts_file": desired["known_hosts"],
            "ssh_strict_host_key_checking": "yes",
            "ssh_allow_agent": False,
            "ssh_look_for_keys": False,
        },
    )
]
