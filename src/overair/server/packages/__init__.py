"""The catalogue of software packages: which versions there are, what hangs on them, and which ones jobs have put on things."""
