"""The machine that the Vagrantfile, lima.yaml and user-data describe, read by the programs that would read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

needs_ruby = pytest.mark.skipif(shutil.which("ruby") is None, reason="no ruby to read a Vagrantfile with")
needs_vagrant = pytest.mark.skipif(shutil.which("vagrant") is None, reason="no vagrant")

RECORDER = r"""
require "json"
require "rubygems"
module Vagrant
  VERSION = ENV.fetch("WITH_VAGRANT")
  def self.require_version(*) end
  class Recorder
    attr_reader :told, :calls
    def initialize() @told, @calls = {}, [] end
    def vm() @vm ||= Recorder.new end
    def trigger() @trigger ||= Recorder.new end
    def vmx() @vmx ||= {} end
    def provider(name, &block) (@providers ||= []) << [name, block] end
    def method_missing(name, *words, **named, &block)
      name.end_with?("=") ? @told[name.to_s.chomp("=")] = words.first : @calls << [name.to_s, words, named]
    end
    def respond_to_missing?(*) true end
    def as_provider(name)
      machine, override = Recorder.new, Recorder.new
      (@providers || []).each { |other, block| block.call(machine, override) if other == name }
      [machine.told.merge("vmx" => machine.vmx), @told.merge(override.vm.told)]
    end
    def providers() @providers.map(&:first) end
  end
  def self.configure(_)
    config = Recorder.new
    yield config
    told = config.vm.providers.to_h { |name| [name, config.vm.as_provider(name)] }
    puts JSON.generate("providers" => told, "calls" => config.vm.calls, "triggers" => config.trigger.calls)
  end
end
load ARGV[0]
"""
"""What stands for Vagrant: it writes down what it is told."""


def read(version: str = "2.4.1", **variables: str) -> Any:
    """What the Vagrantfile says to that Vagrant; a string is what it refuses with."""
    environment = {"PATH": os.environ["PATH"], "WITH_VAGRANT": version, **variables}
    done = subprocess.run(
        ["ruby", "-e", RECORDER, str(ROOT / "Vagrantfile")], env=environment, capture_output=True, text=True, timeout=60
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()


def calls(told: Any, name: str) -> list[tuple[list[Any], dict[str, Any]]]:
    return [(words, named) for call, words, named in told["calls"] if call == name]


@needs_ruby
def test_every_provider_has_a_pinned_box_two_processors_and_two_gibibytes() -> None:
    told = read()["providers"]
    assert set(told) == {"virtualbox", "libvirt", "vmware_desktop", "parallels", "qemu"}
    for name, (machine, vm) in told.items():
        assert "debian-12" in vm["box"] and re.fullmatch(r"[0-9.]{10,}", vm["box_version"]), name
        assert vm["box_architecture"] in ("amd64", "arm64"), name
        size = {**machine, **machine["vmx"]}
        assert str(size.get("cpus") or size.get("smp") or size.get("numvcpus")) == "2", name
        assert str(size.get("memory") or size.get("memsize")).removesuffix("M") == "2048", name


@needs_ruby
def test_sizes_release_and_port_are_the_environment_s() -> None:
    told = read(LAB_CPUS="3", LAB_MEMORY="4096", LAB_PORT="9999", LAB_DEBIAN="13")
    machine, vm = told["providers"]["virtualbox"]
    assert (machine["cpus"], machine["memory"], vm["box"]) == (3, 4096, "bento/debian-13")
    ((_, forwarded),) = calls(told, "network")
    assert (forwarded["host"], forwarded["guest"], forwarded["host_ip"]) == (9999, 8888, "127.0.0.1")
    assert forwarded["auto_correct"]


@needs_ruby
def test_a_vagrant_that_does_not_know_architectures_is_given_the_file() -> None:
    for _, vm in read("2.3.4")["providers"].values():
        assert "box_version" not in vm or vm["box_url"]
        assert re.search(r"/versions/[0-9.]+/providers/\w+/(amd64|arm64)/vagrant\.box$", vm["box_url"])
        assert "box_architecture" not in vm


@needs_ruby
def test_a_box_of_one_s_own_is_checked_and_lies_beside_its_catalogue(tmp_path: Path) -> None:
    provider = {"name": "libvirt", "url": "https://elsewhere/lab.box", "checksum_type": "sha256", "checksum": "ab" * 32}
    catalogue = tmp_path / "lab.json"
    catalogue.write_text(json.dumps({"name": "n/lab", "versions": [{"version": "1.2", "providers": [provider]}]}))
    _, vm = read(LAB_BOX=str(catalogue))["providers"]["libvirt"]
    assert vm["box_url"] == f"file://{tmp_path}/lab.box"
    assert (vm["box_download_checksum"], vm["box_download_checksum_type"]) == ("ab" * 32, "sha256")
    assert vm["box"].startswith("n/lab-1.2-") and "box_version" not in vm
    _, vm = read(LAB_BOX=str(tmp_path / "x.box"), LAB_BOX_CHECKSUM="cd" * 32)["providers"]["virtualbox"]
    assert (vm["box_url"], vm["box_download_checksum"]) == (f"file://{tmp_path}/x.box", "cd" * 32)


@needs_ruby
def test_the_course_comes_by_rsync_and_the_provisioning_script_and_the_address_is_printed_each_time() -> None:
    told = read()
    ((_, folder),) = calls(told, "synced_folder")
    assert folder["type"] == "rsync" and {".git/", ".venv/"} <= set(folder["rsync__exclude"])
    provisioned = {words[0]: named for words, named in calls(told, "provision")}
    assert set(provisioned) == {"course", "address"}
    assert provisioned["course"]["inline"] == "sh /vagrant/vm/provision.sh --lab" and "run" not in provisioned["course"]
    assert "lab-url" in provisioned["address"]["inline"] and provisioned["address"]["run"] == "always"
    assert ["after", ["up"], {}] in told["triggers"]


@needs_ruby
def test_v1_is_another_kernel_command_line_and_a_reboot() -> None:
    (words, named), *_ = calls(read(LAB_CGROUP="v1"), "provision")
    assert words == ["cgroup"] and named["reboot"] and named["inline"].endswith("--cgroup v1")


@needs_ruby
@pytest.mark.parametrize(
    "variables, said",
    [
        ({"LAB_CPUS": "two"}, "LAB_CPUS=two: it is a number, such as 2"),
        ({"LAB_MEMORY": "0"}, "LAB_MEMORY=0: it is a number, such as 2048"),
        ({"LAB_DEBIAN": "11"}, "LAB_DEBIAN=11: it is one of 12, 13"),
        ({"LAB_CGROUP": "v3"}, "LAB_CGROUP=v3: it is v1 or v2"),
        (
            {"LAB_CGROUP": "v1", "LAB_DEBIAN": "13"},
            "LAB_CGROUP=v1: the systemd of Debian 13 does not boot on it; Debian 12's does",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(variables: dict[str, str], said: str) -> None:
    assert read(**variables) == said


@needs_vagrant
def test_vagrant_itself_takes_it(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VAGRANT_HOME": str(tmp_path / "home")}
    environment |= {"VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot")}
    validate = ["vagrant", "validate", "--ignore-provider"]
    done = subprocess.run(validate, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def packages() -> list[str]:
    listed = subprocess.run([str(ROOT / "vm" / "provision.sh"), "--list"], capture_output=True, text=True, check=True)
    return listed.stdout.split()


def test_lima_has_both_architectures_and_shows_the_port_to_this_host_alone() -> None:
    told = yaml.safe_load((ROOT / "vm" / "lima.yaml").read_text())
    assert {image["arch"] for image in told["images"]} == {"x86_64", "aarch64"}
    (forward,) = told["portForwards"]
    assert (forward["guestPort"], forward["hostPort"], forward["hostIP"]) == (8888, 8888, "127.0.0.1")
    assert all(not mount["writable"] for mount in told["mounts"])
    (step,) = told["provision"]
    assert step["mode"] == "system" and f"{told['mounts'][0]['mountPoint']}/vm/provision.sh --lab" in step["script"]


def test_user_data_installs_what_the_provisioning_script_does() -> None:
    text = (ROOT / "vm" / "user-data").read_text()
    assert text.startswith("#cloud-config\n")  # else cloud-init takes it for something else
    assert yaml.safe_load(text)["packages"] == packages()


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="no cloud-init")
def test_cloud_init_knows_every_word_of_user_data() -> None:
    done = subprocess.run(
        ["cloud-init", "schema", "--config-file", str(ROOT / "vm" / "user-data")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
