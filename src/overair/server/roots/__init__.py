"""Who may sign for a repository, and since when? Root chains of both repositories, and the online keys of their roles."""
