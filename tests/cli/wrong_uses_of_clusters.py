"""Wrong uses of a service and of clusters: what is given, and what must be said."""

from .wrong_uses import DIGITS, TOY, Use

BOARD = "BOARD"  # Stands for the address of a dashboard.
NOBODY = "http://127.0.0.1:1"
AFAR = "http://10.255.255.1:8265"


def on_board(*arguments: str) -> list[str]:
    return [*arguments, "--address", BOARD]


USES = {
    # --- A service on this machine ---
    "no hosts": Use(["up", "--hosts", "0"], "--hosts"),
    "up twice": Use(
        ["up"], "up already at http://127.0.0.1:8265", 1, lambda scene: scene.serve()
    ),
    "runs in a file": Use(
        ["up", "--runs", "a_file"], "--runs a_file: is a file, not a folder", 1
    ),
    "runs below a file": Use(
        ["up", "--runs", "a_file/runs"], "--runs a_file/runs: cannot be made", 1
    ),
    "a job of one's own": Use(["job", "a"], "a: pes submit starts jobs", 1),
    # --- Clusters ---
    "no cluster": Use(["list"], "no cluster is named: give --address", 1),
    "not a URL": Use(["list", "--address", "host:8265"], "not an address; it looks", 1),
    "another protocol": Use(
        ["list", "--address", "ray://127.0.0.1:10001"], "not an address", 1
    ),
    "a URL with a space": Use(
        ["list", "--address", "http://127.0.0.1:8265/a b"], "not an address; it", 1
    ),
    "a host with a space": Use(
        ["list", "--address", "http://local host:8265"], "not an address; it looks", 1
    ),
    "no such port": Use(["list", "--address", f"{NOBODY}23456"], "not an address", 1),
    "nothing listens there": Use(
        ["status", "--address", NOBODY], "no cluster answers there", 1
    ),
    "a server that is no Ray": Use(
        ["list", "--address", "BOARD/odd"], "is no Ray dashboard", 1
    ),
    "another page of a server": Use(
        ["list", "--address", "BOARD/nowhere"], "no Ray dashboard", 1
    ),
    "another Ray": Use(["list", "--address", "BOARD/old"], "has Ray 1.0.0, here is", 1),
    "no token": Use(["list", "--address", AFAR], "and there is no token", 1),
    "an empty token": Use(
        ["list", "--address", AFAR, "--token-file", "empty_token"], "no token", 1
    ),
    "an empty token, here": Use(
        on_board("list", "--token-file", "empty_token"),
        "empty_token: holds no token",
        1,
    ),
    "a token of two lines": Use(
        on_board("list", "--token-file", "two_lines_token"),
        "two_lines_token: holds more than one line",
        1,
    ),
    "a token of two words": Use(
        on_board("list", "--token-file", "two_words_token"),
        "two_words_token: holds no token: one word",
        1,
    ),
    "a token with accents": Use(
        on_board("list", "--token-file", "accented_token"),
        "accented_token: holds no token: one word",
        1,
    ),
    "a token for all to read": Use(
        on_board("list", "--token-file", "a_token"),
        "a_token: others on this machine may read the token (mode 644); chmod 600",
        1,
        lambda scene: (scene.folder / "a_token").chmod(0o644),
    ),
    "token missing": Use(
        on_board("list", "--token-file", "nothing"), "token cannot be read", 1
    ),
    "token a folder": Use(
        on_board("list", "--token-file", "folder_token"), "token cannot be read", 1
    ),
    "token no text": Use(
        on_board("list", "--token-file", "odd_token"), "token cannot be read", 1
    ),
    # --- Jobs ---
    "submit nothing": Use(["submit"], "CONFIG"),
    "submit no file": Use(on_board("submit", "nothing.yaml"), "cannot be read"),
    "submit overrides alone": Use(on_board("submit", "a.b=1"), "no configuration", 1),
    "submit an odd N": Use(
        on_board("submit", TOY, "estimator.num_particles=3"), "must be even"
    ),
    "two of one name": Use(
        on_board("submit", TOY, TOY), "two configurations of that", 1
    ),
    "two names for one": Use(
        on_board("submit", TOY, DIGITS, "--name", "a"), "2 configurations, but one", 1
    ),
    "a name with odd characters": Use(
        on_board("submit", TOY, "--name", "a/b"), "letters, digits, '_', '.' and '-'", 1
    ),
    "a group with odd characters": Use(
        on_board("submit", TOY, "--group", "a b"), "letters, digits", 1
    ),
    "submit what runs": Use(
        on_board("submit", TOY, "--name", "live"), "live: is running already", 1
    ),
    "submit another run's name": Use(
        on_board("submit", TOY, "--name", "ended"), "ended: is another run's name", 1
    ),
    "more shards than there is room": Use(
        on_board("submit", TOY, "cluster={pool: ray, shards: 9}"),
        "cluster.shards: 9 with 1 CPU each need 9 CPU, the cluster has 4",
        1,
    ),
    "GPUs of a cluster without": Use(
        on_board("submit", TOY, "cluster.per_shard.num_gpus=1"), "need 1 GPU", 1
    ),
    "a module of another folder": Use(
        on_board("submit", "mine.yaml", "--working-dir", "full"),
        "task.type: module 'my_own' ",
    ),
    "a folder that is not there": Use(
        on_board("submit", TOY, "--working-dir", "nowhere"), "--working-dir"
    ),
    "status of no job": Use(
        on_board("status", "nobody"), "nobody: no such job; jobs", 1
    ),
    "logs of no job": Use(on_board("logs", "nobody"), "there: ended, live", 1),
    "logs of two": Use(on_board("logs", "live", "ended"), "ended"),
    "stop no job": Use(on_board("stop", "nobody"), "nobody: no such job", 1),
    "stop what has ended": Use(on_board("stop", "ended"), "is not running (failed)", 1),
    "resume no job": Use(on_board("resume", "nobody"), "nobody: no such job", 1),
    "resume what runs": Use(on_board("resume", "live"), "live: is running already", 1),
    "resume a job without its configuration": Use(
        on_board("resume", "ended"), "ended: its configuration: must hold sections"
    ),
    "scale no job": Use(on_board("scale", "nobody", "--shards", "2"), "no such job", 1),
    "scale what has ended": Use(
        on_board("scale", "ended", "--particles", "4"), "is not running (failed)", 1
    ),
    "scale a job to nothing": Use(
        on_board("scale", "live", "--particles", "0"), "particles: 0"
    ),
    "compare no group": Use(on_board("compare", "h"), "h: no such job or group", 1),
}
