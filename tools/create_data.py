"""Prepare a data set: write its index, cut out its objects for ground-truth paste, write the synthetic data set, or
exchange an index with mmdetection3d.

python tools/create_data.py nuscenes --root data/nuscenes --version v1.0-trainval
python tools/create_data.py waymo --root data/waymo --points float16
python tools/create_data.py objects --root data/nuscenes --index sparse3d_train.arrow
python tools/create_data.py synthetic --root data/synthetic --scenes 40 --val-scenes 10 --frames 6
python tools/create_data.py synthetic-waymo --root data/synthetic_waymo --scenes 20 --val-scenes 5 --frames 10
python tools/create_data.py to-mmdet3d --root data/nuscenes --index sparse3d_train.arrow --out nuscenes_infos_train.pkl
python tools/create_data.py from-mmdet3d --root data/nuscenes --infos nuscenes_infos_train.pkl --out train.arrow
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.datasets.create_infos import index_to_infos, infos_to_index
from sparse3d.datasets.create_objects import create_object_database
from sparse3d.datasets.create_waymo import IMAGE_FORMS, POINT_FORMS, create_waymo_index
from sparse3d.datasets.synthetic import write_synthetic, write_synthetic_waymo


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Prepare a data set.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_nuscenes(commands.add_parser("nuscenes", help="index nuScenes from its raw v1.0 tables"))
    _add_waymo(commands.add_parser("waymo", help="index the Waymo Open Dataset, v1 (TFRecord) or v2 (Parquet)"))
    _add_objects(commands.add_parser("objects", help="write the object database that ground-truth paste draws from"))
    _add_synthetic(commands.add_parser("synthetic", help="write the procedural driving world in nuScenes' format"))
    _add_synthetic_waymo(commands.add_parser("synthetic-waymo", help="write the same world in Waymo's format (v2)"))
    _add_to_mmdet3d(commands.add_parser("to-mmdet3d", help="write an index of nuScenes as an info file"))
    _add_from_mmdet3d(commands.add_parser("from-mmdet3d", help="write an info file of mmdetection3d as an index"))
    return parser.parse_args()


def _add_nuscenes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, help="folder that holds v1.0-*/, samples/ and sweeps/")
    parser.add_argument(
        "--version", required=True, help="v1.0-mini, v1.0-trainval or v1.0-test; mini, trainval, test do too"
    )
    parser.set_defaults(run=lambda arguments: create_nuscenes_index(arguments.root, arguments.version))


def _add_waymo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, help="folder that holds training/, validation/, testing/")
    parser.add_argument("--splits", nargs="+", help="of train, val, test (default: those that are there)")
    parser.add_argument(
        "--points",
        choices=POINT_FORMS,
        default="original",
        help="decode points whenever they are loaded, or write them to packed files now (default: %(default)s)",
    )
    parser.add_argument(
        "--images", choices=IMAGE_FORMS, default="original", help="likewise for images (default: %(default)s)"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out segments that cannot be read, and list them")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.set_defaults(run=_waymo)


def _waymo(arguments: argparse.Namespace) -> None:
    written = create_waymo_index(
        arguments.root,
        splits=arguments.splits,
        points=arguments.points,
        images=arguments.images,
        workers=arguments.workers,
        skip_bad=arguments.skip_bad,
    )
    for path in written.paths:
        print(f"index: {path}")
    if written.skipped:
        print(f"skipped {len(written.skipped)} segments:", *written.skipped, sep="\n  ")


def _add_objects(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the index, samples/ and sweeps/")
    parser.add_argument("--index", type=Path, required=True, help="index of the training split, relative to the root")
    parser.add_argument(
        "--sweeps",
        type=int,
        help="scans before the key frame, as the pipeline's loader takes (default: 9 of nuScenes, none of Waymo)",
    )
    parser.add_argument(
        "--images", action="store_true", help="also cut the objects out of the images, for detectors that see both"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.set_defaults(run=_objects)


def _objects(arguments: argparse.Namespace) -> None:
    path = create_object_database(
        arguments.root, arguments.index, arguments.sweeps, arguments.workers, arguments.images
    )
    print(f"objects: {path}")


def _add_world(parser: argparse.ArgumentParser) -> None:
    """Add what both formats of the synthetic world are asked."""
    parser.add_argument("--root", type=Path, required=True, help="folder to write; it must not hold anything else")
    parser.add_argument("--scenes", type=int, default=40, help="training scenes (default: %(default)s)")
    parser.add_argument("--val-scenes", type=int, default=10, help="held-out scenes (default: %(default)s)")
    parser.add_argument(
        "--image-scale", type=float, default=1.0, help="1 writes images of full size (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed writes the same contents (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--force", action="store_true", help="replace a synthetic data set that is already there")


def _add_synthetic(parser: argparse.ArgumentParser) -> None:
    _add_world(parser)
    parser.add_argument("--frames", type=int, default=6, help="key frames a scene, 2 Hz (default: %(default)s)")
    parser.add_argument("--sweeps", type=int, default=9, help="LiDAR sweeps between key frames (default: %(default)s)")
    parser.add_argument("--version", default="v1.0-trainval", help="name of the table folder (default: %(default)s)")
    parser.set_defaults(run=_synthetic)


def _synthetic(arguments: argparse.Namespace) -> None:
    write_synthetic(
        arguments.root,
        scenes=arguments.scenes,
        val_scenes=arguments.val_scenes,
        frames=arguments.frames,
        sweeps=arguments.sweeps,
        image_scale=arguments.image_scale,
        seed=arguments.seed,
        version=arguments.version,
        workers=arguments.workers,
        force=arguments.force,
    )
    create_nuscenes_index(arguments.root, arguments.version)


def _add_synthetic_waymo(parser: argparse.ArgumentParser) -> None:
    _add_world(parser)
    parser.add_argument("--frames", type=int, default=10, help="frames a scene, 10 Hz (default: %(default)s)")
    parser.add_argument(
        "--laser-scale", type=float, default=1.0, help="1 writes range images of full size (default: %(default)s)"
    )
    parser.add_argument("--points", choices=POINT_FORMS, default="original", help="as of waymo (default: %(default)s)")
    parser.set_defaults(run=_synthetic_waymo)


def _synthetic_waymo(arguments: argparse.Namespace) -> None:
    write_synthetic_waymo(
        arguments.root,
        scenes=arguments.scenes,
        val_scenes=arguments.val_scenes,
        frames=arguments.frames,
        laser_scale=arguments.laser_scale,
        image_scale=arguments.image_scale,
        seed=arguments.seed,
        workers=arguments.workers,
        force=arguments.force,
    )
    create_waymo_index(arguments.root, points=arguments.points, workers=arguments.workers)


def _add_to_mmdet3d(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the index, samples/ and sweeps/")
    parser.add_argument("--index", type=Path, required=True, help="the index, relative to the root")
    parser.add_argument("--out", type=Path, required=True, help="info file to write (.pkl), relative to the root")
    parser.set_defaults(run=lambda arguments: print(index_to_infos(arguments.root, arguments.index, arguments.out)))


def _add_from_mmdet3d(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, help="folder that holds samples/ and sweeps/")
    parser.add_argument("--infos", type=Path, required=True, help="info file of v1.1 (.pkl), relative to the root")
    parser.add_argument("--out", type=Path, required=True, help="index to write (.arrow), relative to the root")
    parser.set_defaults(run=lambda arguments: print(infos_to_index(arguments.root, arguments.infos, arguments.out)))


def main() -> None:
    """Run the command; what is wrong with files or arguments is said in one line."""
    arguments = parse_arguments()
    try:
        arguments.run(arguments)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"create_data {arguments.command}: {error}") from None


if __name__ == "__main__":
    main()
