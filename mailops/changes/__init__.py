"""What has changed on machines: generations, drift, history.

What is typed to make a change is in `bootstrap`.
"""
