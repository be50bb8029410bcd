"""The roots of both repositories, and the images that vehicles may install, in both flavours."""

from __future__ import annotations

from overair.server.composition.ground import Ground
from overair.server.director.served_roots import ServedRoots
from overair.server.image_repository.importing import RepositoryImports
from overair.server.image_repository.ports import NothingInUse
from overair.server.image_repository.publication import Publisher
from overair.server.image_repository.pushing import Pushes
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.serving import Shelf
from overair.server.image_repository.status import RepositoryStatuses
from overair.server.image_repository.store import SqlDocumentStore, SqlImageUploadStore, SqlTargetStore
from overair.server.image_repository.uploads import ImageUploads
from overair.server.roots.erasure import KeyErasure
from overair.server.roots.importing import ChainImports
from overair.server.roots.probes import RootProbes
from overair.server.roots.service import RootsService
from overair.server.roots.store import SqlRootStore
from overair.wire.uptane.metadata import Repository


class RepositoryRooms:
    """The rooms ``roots`` and ``image_repository``. What is served from memory goes with each change of the records."""

    def __init__(self, ground: Ground) -> None:
        work, clock, ids = ground.work, ground.clock, ground.ids
        root_store = SqlRootStore(changed=lambda account, _repository: self.director_roots.evict(account))
        self.roots = RootsService(store=root_store, keys=ground.keyring, clock=clock, ids=ids)
        self.erasure = KeyErasure(ground.scrub_keys)
        self.roots.keys.when_forgotten = self.erasure.note
        self.root_probes = RootProbes(work=work, store=root_store, clock=clock)
        self.director_roots = ServedRoots(work=work, roots=self.roots)

        self.documents, self.targets = SqlDocumentStore(), SqlTargetStore()
        publisher = Publisher(roots=self.roots, documents=self.documents, published=lambda account: self.shelf.evict(account))
        self.images = ImageRepositoryService(
            roots=self.roots,
            documents=self.documents,
            targets=self.targets,
            publisher=publisher,
            in_use=NothingInUse(),
            clock=clock,
        )
        self.roots.kept_by(Repository.IMAGE, self.images)
        self.shelf = Shelf(work=work, roots=self.roots, images=self.images)
        self.pushes = Pushes(roots=self.roots, images=self.images, publisher=publisher, targets=self.targets, clock=clock)
        self.statuses = RepositoryStatuses(roots=self.roots, images=self.images, targets=self.targets, probes=self.root_probes)
        self.imports = RepositoryImports(
            roots=self.roots,
            chains=ChainImports(roots=self.roots, probes=self.root_probes),
            images=self.images,
            pushes=self.pushes,
            documents=self.documents,
            targets=self.targets,
            clock=clock,
        )
        self.uploads = ImageUploads(store=SqlImageUploadStore(), targets=self.targets, clock=clock, ids=ids)
