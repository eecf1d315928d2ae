"""The tests, in folders named as those of moonshine/ whose modules they test.

Besides: stages/ has the tests of whole stages, pipeline/ those of the whole project under both engines; faults/ what
may go wrong at any moment; benchmarks/ and docs/ those of the folders of these names; slurm/ and
containers/test_images.py need a cluster or a container engine. support/ is what they share.
"""
