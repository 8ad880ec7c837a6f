"""Cambium beside the Python libraries: each reads what the other wrote, and the results are compared (`make interop`)."""
