"""Networks: functions from tensors to tensors with any leading batch shape."""
