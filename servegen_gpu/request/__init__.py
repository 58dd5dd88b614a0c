"""What a request is: its fields, its gap families, its columns, and the tables that it is drawn from."""
