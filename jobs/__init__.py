"""runcast without a web: what a job is, how it is stored, run and followed.

Nothing here may import from `handlers`: whatever a client touches lives there.
"""
