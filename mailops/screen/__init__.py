"""What a person is shown: steps, tables, differences; texts that do not steer a terminal.

Nothing here asks a machine or a person.
"""
