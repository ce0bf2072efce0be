"""What is published of this checkout: a source distribution, a wheel, and the wheel of the client alone.

build.py  makes the three          client.py  what of the wheel is the client's
tried.py  installs them into empty environments, and uses them
"""
