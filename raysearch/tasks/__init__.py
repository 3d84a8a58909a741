"""What is learned and how it is judged: the contract of a task, and image classification."""
