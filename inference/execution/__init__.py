"""Functions of tensors that are recorded once that pays, and run again from the recording."""
