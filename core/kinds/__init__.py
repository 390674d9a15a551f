"""What a task asks for, and what is made of a model's answers: a kind is an object, and everything else asks it."""
