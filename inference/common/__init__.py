"""What every room may use: progress, checks of arguments, files, figure style."""
