"""The lab's S3 server: moto, which keeps everything in memory, started with what a folder holds.

Runs inside the container of the object store, with the packages of its image alone. Its argument is a folder with a
folder for each bucket; they are there from the first answer on, after every restart too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import boto3
from botocore.config import Config
from moto import mock_aws
from moto.server import main

#: There whether the folder has it or not.
BUCKET = "models"


def fill(folder: Path) -> int:
    """Put every file of a folder into its bucket; give how many there are."""
    # In this process the server and the client that moto answers itself share one memory.
    mock = mock_aws()
    mock.start()
    # The bucket in the path, as the server is told to read it.
    config = Config(s3={"addressing_style": "path"})
    client = boto3.client(
        "s3", region_name="us-east-1", aws_access_key_id="lab", aws_secret_access_key="lab", config=config
    )
    count = 0
    for bucket in sorted({BUCKET} | {path.name for path in folder.iterdir() if path.is_dir()}):
        client.create_bucket(Bucket=bucket)
        for path in sorted((folder / bucket).rglob("*")):
            if path.is_file():
                client.put_object(
                    Bucket=bucket, Key=path.relative_to(folder / bucket).as_posix(), Body=path.read_bytes()
                )
                count += 1
    mock.stop(remove_data=False)
    return count


if __name__ == "__main__":
    print(f"{fill(Path(sys.argv[1]))} objects at the start", flush=True)
    main(sys.argv[2:])
