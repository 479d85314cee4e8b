"""What a person looks at: figures of runs, and the report of a diagnosis."""
