"""Reading Lua as text: what a policy says in so many words, without ever running it."""
