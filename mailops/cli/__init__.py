"""What is typed: Fabric's program, executor and parser, made to fit a site.

What the tasks are is in `tasks.py`, what is printed in `screen`.
"""
