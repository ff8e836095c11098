"""Copies of the serving repository: a data centre's own folder, which its Triton server reads.

A copy has the versions and the route of the original. A version is copied under a temporary name,
verified against its manifest, and renamed, so that a server never reads half a version.
"""

import shutil

from model_code.artifacts import atomic_folder
from model_code.errors import IntegrityError, PromotionError, TicklineError
from model_code.repository.manifest import MANIFEST_FILE, Manifest
from model_code.repository.route import Route
from model_code.repository.serving import ServingRepository, sync_file

REMEDY = "move the copy's folder away, then: tickline reconcile"


def mirror(source: ServingRepository, copy: ServingRepository, needed: int | None) -> None:
    """Give a copy the versions that the original has in Triton's folder.

    A version other than `needed` that is damaged on either side is left out.

    Args:
        source: the original.
        copy: at another path.
        needed: must be in the copy, intact; None if nothing serves.

    Raises:
        PromotionError: the copy's folder does not exist.
        IntegrityError: the needed version has other bytes than its manifest or the original.
        StorageError: the disk is full; nothing is left behind.
    """
    require_folder(copy)
    kept = []
    for version in source.versions():
        try:
            copy_version(source, copy, version)
        except TicklineError:
            if version == needed:
                raise
        else:
            kept.append(version)
    copy.arrange(kept)


def copy_version(source: ServingRepository, copy: ServingRepository, version: int) -> None:
    """Copy a version unless the copy has it; verify it in either case.

    Raises:
        IntegrityError: the bytes differ from the manifest, or the copy has another version of this
            number.
    """
    original = Manifest.load(source.folder(version))
    if version in copy.known():
        folder = copy.folder(version)
        try:
            found = Manifest.load(folder)
        except IntegrityError as error:
            raise IntegrityError(error.what, where=error.where, remedy=REMEDY) from error
        if found != original:
            raise IntegrityError(
                f"version {version} of the copy is another one", where=str(folder), remedy=REMEDY
            )
        return
    with atomic_folder(copy.archive / str(version)) as folder:
        shutil.copytree(source.folder(version), folder, dirs_exist_ok=True)
        for path in folder.iterdir():
            sync_file(path)
        if (folder / MANIFEST_FILE).read_bytes() != original.text():
            raise IntegrityError(f"version {version} changed while copied", where=str(folder))
        original.verify(folder)  # the copy, before the rename


def copy_route(source: ServingRepository, copy: ServingRepository) -> None:
    """Give the copy the original's route, without a canary's share.

    Raises:
        PromotionError: the copy's folder does not exist.
        StorageError: it cannot be written.
    """
    require_folder(copy)
    wanted = Route(champion=source.route().champion)
    if Route.load(copy.route_file) != wanted:
        wanted.save(copy.route_file)


def require_folder(copy: ServingRepository) -> None:
    """Refuse a folder that is not there: below an absent mount it would be made on this disk.

    Raises:
        PromotionError: it does not exist.
    """
    if not copy.root.is_dir():
        raise PromotionError(
            "the target's repository does not exist",
            where=str(copy.root),
            remedy="mount it, or create the folder",
        )
