"""Tables, money rules, database."""
