"""Driving a server: a streaming client whose stamps can be trusted, and the loads it makes."""
