"""What is run: standard scenarios, the tokens of each request, lengths, arrivals, and identities."""
