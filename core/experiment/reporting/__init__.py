"""From numbers to people: tables, pictures, the user's files."""
