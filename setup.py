"""The packages of the wheel: the three code folders and what is in them, under one namespace."""

from setuptools import find_packages, setup

FOLDERS = ("models", "guides", "inference")

setup(
    packages=[
        f"latente.{package}"
        for folder in FOLDERS
        for package in (folder, *(f"{folder}.{part}" for part in find_packages(folder)))
    ],
    package_dir={f"latente.{folder}": folder for folder in FOLDERS},
)
