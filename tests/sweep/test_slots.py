"""Slots are made of the cores and GPUs that are here, allowed and free, and of no others."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmsa.errors import ConfigError
from mmsa.sweep import machine
from mmsa.sweep import slots as module
from mmsa.sweep.machine import Gpu, cgroup_cores, found_gpus, num_cores
from mmsa.sweep.slots import Accelerator, SlotPlan, choose_slots

SMI = """\
0, GPU-aaaa1111, NVIDIA A100, SXM4, 1024, 40960
1, GPU-aaaa2222, NVIDIA A100, SXM4, 39936, 40960
2, GPU-bbbb3333, NVIDIA GB10, [N/A], [N/A]
"""
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL", "MMSA_PRETEND_GPUS"),
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_LOCALID"),
)


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the cores 2, 3, 6 and 7, no GPU, and nothing that chooses among them."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {7, 2, 3, 6}, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(machine, "cgroup_cores", lambda: None)
    monkeypatch.setattr(machine, "num_torch_gpus", lambda: 0)
    monkeypatch.setattr(module, "_has_mps", lambda: False)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an nvidia-smi on the path, for a PyTorch that can use what it lists."""

    def install(listing: str = SMI, status: int = 0) -> None:
        (tmp_path / "listing").write_text(listing)
        script = tmp_path / "nvidia-smi"
        script.write_text(
            f'#!/bin/sh\n[ "$1" = --query-gpu=index,uuid,name,memory.free,memory.total ] || exit 9\n'
            f"cat {tmp_path}/listing\nexit {status}\n"
        )
        script.chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(machine, "num_torch_gpus", lambda: 3)

    return install


def plan(
    slots: object = "auto",
    accelerator: Accelerator = "auto",
    threads: int = 1,
    slots_per_gpu: int = 1,
    gpu_memory: float = 2,
) -> SlotPlan:
    return choose_slots(slots, accelerator, threads, slots_per_gpu, gpu_memory)  # type: ignore[arg-type]


def names(plan: SlotPlan) -> list[str]:
    return [slot.name for slot in plan.slots]


def refused(*arguments: object, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(*arguments, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    assert message.splitlines()[-1].startswith("  type ")
    return message


# --- Cores ------------------------------------------------------------------------------------------------------------


def groups(tmp_path: Path, lines: str, **files: str) -> int | None:
    """The limit by a made-up /proc/self/cgroup and folder of groups."""
    (tmp_path / "cgroup").write_text(lines)
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return cgroup_cores(tmp_path / "cgroup", tmp_path / "groups")


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/user/job\n", {"user/job/cpu.max": "250000 100000\n"}, 3),  # rounded up
        ("0::/user/job\n", {"user/job/cpu.max": "max 100000\n"}, None),
        ("0::/user/job\n", {"user/job/cpu.max": "max 100000\n", "user/cpu.max": "200000 100000\n"}, 2),
        ("0::/user/job\n", {"user/job/cpu.max": "100000 100000\n", "user/cpu.max": "200000 100000\n"}, 1),
        ("0::/user/job\n", {"other/cpu.max": "100000 100000\n"}, None),
        ("0::/user/job\n", {"cpu.max": "10000 100000\n"}, 1),  # at least one
        ("0::/../../outside\n", {"cpu.max": "300000 100000\n"}, 3),  # in a container with its own view
        (
            "2:cpuset:/\n1:cpu,cpuacct:/job\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "350000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        ("1:cpu:/job\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("2:cpuset:/other\n1:cpu:/\n", {"cpu/other/cpu.max": "100000 100000\n"}, None),  # other words with cpu in them
        ("", {}, None),
    ],
)
def test_the_quota_of_the_control_groups(
    lines: str, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    assert groups(tmp_path, lines, **files) == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_cores(tmp_path / "absent", tmp_path) is None


def test_cores_are_the_least_of_all_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_cores() == 4
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    assert num_cores() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")  # the task's share counts, not the job's
    assert num_cores() == 2
    monkeypatch.setattr(machine, "cgroup_cores", lambda: 1)
    assert num_cores() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "16")
    monkeypatch.setattr(machine, "cgroup_cores", lambda: 8)
    assert num_cores() == 4


def test_this_machine_has_cores_and_a_quota_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= num_cores() <= (os.cpu_count() or 1)


# --- GPUs -------------------------------------------------------------------------------------------------------------


def test_gpus_as_nvidia_smi_lists_them(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi()
    assert found_gpus() == [
        Gpu(0, "GPU-aaaa1111", "NVIDIA A100, SXM4", 2**30, 40 * 2**30),
        Gpu(1, "GPU-aaaa2222", "NVIDIA A100, SXM4", 39 * 2**30, 40 * 2**30),
        Gpu(2, "GPU-bbbb3333", "NVIDIA GB10", None, None),
    ]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,0", ["GPU-bbbb3333", "GPU-aaaa1111"]),
        (" 1 ", ["GPU-aaaa2222"]),
        ("GPU-b,GPU-aaaa2", ["GPU-bbbb3333", "GPU-aaaa2222"]),
        ("GPU-a", []),  # which of the two
        ("1,9,0", ["GPU-aaaa2222"]),  # CUDA ends at the first that is not there
        ("1,GPU-aaaa2222", ["GPU-aaaa2222"]),
        ("MIG-1/2/0,0", ["MIG-1/2/0", "GPU-aaaa1111"]),
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_chooses_and_orders(
    visible: str, expected: list[str], nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    found = found_gpus()
    assert [gpu.id for gpu in found] == expected
    assert [gpu.index for gpu in found] == list(range(len(expected)))
    assert all(gpu.free is None for gpu in found if gpu.id.startswith("MIG"))


def test_a_job_of_slurm_has_its_own_gpus_only(nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi()
    monkeypatch.setenv("SLURM_JOB_GPUS", "1,2")
    assert [gpu.id for gpu in found_gpus()] == ["GPU-aaaa2222", "GPU-bbbb3333"]
    monkeypatch.setenv("SLURM_STEP_GPUS", "2")
    assert [gpu.id for gpu in found_gpus()] == ["GPU-bbbb3333"]
    nvidia_smi(SMI.splitlines()[0])  # the system shows the job nothing else, numbered anew
    assert [gpu.id for gpu in found_gpus()] == ["GPU-aaaa1111"]


@pytest.mark.parametrize("failing", [True, False])
def test_without_nvidia_smi_pytorch_counts(
    failing: bool, nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if failing:
        nvidia_smi("NVIDIA-SMI has failed", status=9)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "num_torch_gpus", lambda: 2)
    assert found_gpus() == [Gpu(0, "0", "GPU", None, None), Gpu(1, "1", "GPU", None, None)]
    assert names(plan()) == ["cuda:0 1/1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-c,3")
    assert [(gpu.index, gpu.id) for gpu in found_gpus()] == [(0, "GPU-c"), (1, "3")]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in plan().slots] == ["GPU-c", "3"]


def test_a_hanging_nvidia_smi_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "nvidia-smi").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "_SMI_SECONDS", 0.1)
    assert found_gpus() == []


def test_gpus_are_none_for_a_pytorch_without_them(
    nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi()
    monkeypatch.setattr(machine, "num_torch_gpus", lambda: 0)
    assert found_gpus() == []
    assert names(plan()) == ["cpu 1", "cpu 2", "cpu 3", "cpu 4"]


def test_pytorch_agrees_on_the_number_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert machine.num_torch_gpus() == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


@pytest.mark.parametrize("text", ["8,much", "nan", "inf"])
def test_a_pretended_gpu_has_a_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", text)
    with pytest.raises(ConfigError, match=r"  type export MMSA_PRETEND_GPUS="):
        found_gpus()


# --- Automatic slots --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "cores"), [(1, [2, 3, 6, 7]), (2, [2, 6]), (3, [2]), (4, [2])])
def test_cpu_slots_share_no_core(threads: int, cores: list[int]) -> None:
    found = plan(threads=threads)
    assert [slot.lock for slot in found.slots] == [f"cpu {core}" for core in cores]
    assert names(found) == [f"cpu {number}" for number in range(1, len(cores) + 1)]
    for slot in found.slots:
        assert (slot.accelerator, slot.threads) == ("cpu", threads)
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
    assert first.accelerator == "cuda"
    assert first.environment["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa2222"
    assert first.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert first.environment["OMP_NUM_THREADS"] == "1"
    assert found.notes == (
        "cuda:0 (NVIDIA A100, SXM4, 1.0 GiB free) is left out: a GPU needs 2 GiB free for each of 2 slots "
        "(sweep.gpu_memory).",
        "Of 3 GPUs only cuda:1 (NVIDIA A100, SXM4, 39.0 GiB free) is used, for nobody said that the others are yours; "
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
    assert {slot.accelerator for slot in found.slots} == {"cpu"}  # pretended GPUs compute on the CPU
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
    monkeypatch.setattr(module, "_has_mps", lambda: True)
    assert names(plan()) == names(plan(accelerator="mps")) == names(plan(["mps"])) == ["mps"]
    assert plan().slots[0].accelerator == "mps"
    assert len(plan(accelerator="cpu").slots) == 4
