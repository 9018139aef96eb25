"""Give a snapshot back: decide (plan), carry out (apply), and never write outside the folder that was named."""
