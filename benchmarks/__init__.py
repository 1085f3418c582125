"""How long mailops takes, beside what a user would pick instead. `script/bench --help` tells how to run it."""
