"""Results for people: the content of scores.json enters, a table for the terminal and a picture leave."""
