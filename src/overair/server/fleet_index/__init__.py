"""Which things are like that, and which groups do they belong to because of it?"""
