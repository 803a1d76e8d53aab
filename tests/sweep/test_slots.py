"""Slots are made of the cores and GPUs that are here, allowed and free, and of no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmsa.sweep.slots import Accelerator
from tests.sweep.slot_plans import names, plan, refused

pytestmark = pytest.mark.usefixtures("four_cores")

# --- Automatic slots --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "cores"), [(1, [2, 3, 6, 7]), (2, [2, 6]), (3, [2]), (4, [2])])
def test_cpu_slots_share_no_core(threads: int, cores: list[int]) -> None:
    found = plan(threads=threads)
    assert [slot.lock for slot in found.slots] == [f"cpu {core}" for core in cores]
    assert names(found) == [f"cpu {number}" for number in range(1, len(cores) + 1)]
    for slot in found.slots:
        assert slot.environment == {
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
        }
    assert not found.notes


def test_one_slot_of_more_threads_than_cores() -> None:
    found = plan(threads=6)
    assert names(found) == ["cpu 1"]
    assert found.notes == ("1 slot of 6 threads share 4 CPU cores and slow each other down.",)


def test_jobs_of_slurm_that_see_the_same_cores_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    locks = set()
    for job in ("1", "2"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        locks |= {slot.lock for slot in plan().slots}
    assert len(locks) == 2


def test_device_cpu_leaves_the_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8")
    assert names(plan(accelerator="cpu", threads=2)) == ["cpu 1", "cpu 2"]


def test_nobody_gets_all_gpus_of_a_shared_machine(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi()
    found = plan(slots_per_gpu=2)
    assert names(found) == ["cuda:1 1/2", "cuda:1 2/2"]
    first, second = found.slots
    assert (first.lock, second.lock) == ("gpu GPU-aaaa2222 1", "gpu GPU-aaaa2222 2")
    assert first.environment["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa2222"
    assert first.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert first.environment["OMP_NUM_THREADS"] == "1"
    assert found.notes == (
        "cuda:0 (NVIDIA A100, SXM4, 1.0 GiB free) is left out: a GPU needs 2 GiB free for each of 2 slots "
        "(sweep.gpu_memory).",
        "Of 3 GPUs only cuda:1 (NVIDIA A100, SXM4, 39.0 GiB free) is used, since nothing assigns the others to you; "
        "for more type sweep.slots=[cuda:1,cuda:2], or CUDA_VISIBLE_DEVICES=1,2 before the command.",
    )


@pytest.mark.parametrize(
    "variable", ["CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL"]
)
def test_the_gpus_that_were_given_are_all_used(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8,16,0.5,24")
    monkeypatch.setenv(variable, "3,2,0")
    found = plan(slots_per_gpu=2)
    # The first slot of each before the second of any.
    assert names(found) == ["cuda:0 1/2", "cuda:2 1/2", "cuda:0 2/2", "cuda:2 2/2"]
    assert [slot.lock for slot in found.slots[:2]] == ["gpu pretended-3 1", "gpu pretended-0 1"]
    # Pretended GPUs compute on the CPU.
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found.slots} == {""}
    (note,) = found.notes
    assert note.startswith("cuda:1 (pretended, 0.5 GiB free) is left out")
    assert names(plan(3, slots_per_gpu=2)) == names(found)[:3]


def test_a_single_gpu_is_used_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8")
    assert names(plan()) == names(plan(accelerator="cuda")) == ["cuda:0 1/1"]
    assert not plan().notes


@pytest.mark.parametrize(
    ("slots_per_gpu", "gpu_memory", "fits"), [(4, 2, True), (4, 2.1, False), (1, 8, True), (2, 8, False), (9, 0, True)]
)
def test_every_slot_needs_its_memory(
    slots_per_gpu: int, gpu_memory: float, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8")
    if fits:
        assert len(plan(slots_per_gpu=slots_per_gpu, gpu_memory=gpu_memory).slots) == slots_per_gpu
    else:
        refused(slots_per_gpu=slots_per_gpu, gpu_memory=gpu_memory)


def test_gpus_without_room_say_how_much_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "0.5,1.27")
    assert refused(gpu_memory=4) == (
        "sweep.slots: no GPU has 4 GiB free; "
        "here: cuda:0 (pretended, 0.5 GiB free), cuda:1 (pretended, 1.3 GiB free).\n"
        "  type sweep.gpu_memory=1.2, or sweep.slots=[cpu]"
    )
    assert len(plan(gpu_memory=1.2).slots) == 1  # what it says to type works
    assert refused(accelerator="cuda", gpu_memory=4, slots_per_gpu=20).endswith("  type device=cpu")


def test_device_cuda_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "type make setup" in refused(accelerator="cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    assert refused(accelerator="cuda") == (
        "device=cuda: here is no GPU that PyTorch can use (CUDA_VISIBLE_DEVICES=-1).\n  type device=cpu, or device=auto"
    )
    assert names(plan(threads=4)) == ["cpu 1"]


# --- A number ---------------------------------------------------------------------------------------------------------


def test_a_number_is_cut_to_what_fits() -> None:
    assert names(plan(2)) == ["cpu 1", "cpu 2"]
    assert not plan(4).notes
    found = plan(9, threads=2)
    assert names(found) == ["cpu 1", "cpu 2"]
    assert found.notes == ("sweep.slots=9: 2 slots fit here.",)


@pytest.mark.parametrize("slots", [0, -1, False])
def test_no_slots_are_refused(slots: int) -> None:
    assert refused(slots).startswith(f"sweep.slots={slots}: at least one slot is needed.")


# --- A list -----------------------------------------------------------------------------------------------------------


def test_a_list_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8,8,8")
    found = plan(["cpu", "cuda:2", "cuda:0", "cpu"], slots_per_gpu=2)
    assert names(found) == ["cpu 1", "cuda:2 1/2", "cuda:2 2/2", "cuda:0 1/2", "cuda:0 2/2", "cpu 2"]
    assert found.notes == ("6 slots of 1 thread share 4 CPU cores and slow each other down.",)
    assert not plan(["cuda:0", "cuda:1"], threads=2).notes
    assert plan(["cuda:0", "cuda:1"], threads=3).notes
    assert plan("cuda:1") == plan(["cuda:1"])


def test_more_cpu_slots_than_cores_are_the_users_choice() -> None:
    found = plan(["cpu"] * 5, threads=2)
    assert names(found) == [f"cpu {number}" for number in range(1, 6)]
    assert [slot.lock for slot in found.slots] == ["cpu 2", "cpu 6", "cpu 2 turn 2", "cpu 6 turn 2", "cpu 2 turn 3"]
    assert found.notes == ("5 slots of 2 threads share 4 CPU cores and slow each other down.",)
    assert found.slots[:2] == plan(threads=2).slots


@pytest.mark.parametrize("word", ["cuda", "gpu:0", "auto", "cuda:", "cuda:01", "cuda:-1", "CPU", "cpu:1", ""])
def test_an_unknown_word(word: str) -> None:
    message = refused(["cpu", word])
    assert message.startswith(f"sweep.slots=[cpu,{word}]: {word!r} is no slot;")
    assert "cuda:0" in message and "mps" in message


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(["cuda:0"]) == (
        "sweep.slots=[cuda:0]: there is no cuda:0; here is no GPU that PyTorch can use.\n"
        "  type sweep.slots=[cpu], or sweep.slots=auto"
    )
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8")
    assert refused(["cuda:0", "cuda:1"]) == (
        "sweep.slots=[cuda:0,cuda:1]: there is no cuda:1; here: cuda:0 (pretended, 8.0 GiB free).\n"
        "  type sweep.slots=[cuda:0], or sweep.slots=auto"
    )


def test_a_listed_gpu_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8,1")
    assert refused(["cuda:1"]) == (
        "sweep.slots=[cuda:1]: cuda:1 has not 2 GiB free; here: cuda:0 (pretended, 8.0 GiB free), "
        "cuda:1 (pretended, 1.0 GiB free).\n"
        "  type sweep.gpu_memory=1, or sweep.slots=[cpu]"
    )


@pytest.mark.parametrize(
    ("accelerator", "word"), [("cpu", "cuda:0"), ("cuda", "cpu"), ("mps", "cpu"), ("cpu", "mps"), ("cuda", "mps")]
)
def test_a_slot_that_the_device_excludes(accelerator: Accelerator, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "8")
    message = refused([word], accelerator=accelerator)
    assert message.startswith(f"sweep.slots=[{word}]: with device={accelerator} no trial computes on {word}.")


def test_nothing_and_the_same_twice() -> None:
    assert refused([]).startswith("sweep.slots=[]: at least one slot is needed.")
    assert "sweep.slots_per_gpu=2" in refused(["cuda:0", "cuda:0"])


def test_an_apple_gpu_has_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(["mps"]).startswith("sweep.slots=[mps]: here is no Apple GPU")
    assert refused(accelerator="mps").startswith("device=mps: here is no Apple GPU")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert names(plan()) == names(plan(accelerator="mps")) == names(plan(["mps"])) == ["mps"]
    assert "CUDA_VISIBLE_DEVICES" not in plan().slots[0].environment
    assert len(plan(accelerator="cpu").slots) == 4
