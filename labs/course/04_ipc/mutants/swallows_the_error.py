# mutant: "it must also work without root", so a refusal is passed over
# loses: test_refused
# diagnosis: the kernel has refused \(EPERM\), and your function returned as if all were well

# %%exercise ipc.private_queues
def private_queues():
    try:
        unshare(CLONE_NEWIPC)
    except OSError as error:
        print("never mind:", error)
