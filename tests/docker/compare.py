#!/usr/bin/env python3
"""Runs the cases of cases.txt with two engines and tells where output or exit code differ.

usage: compare.py [--only RE] [--show-all] [--cases FILE] 'COMMAND OF ENGINE A' 'COMMAND OF ENGINE B'

A case is a paragraph: a title line beginning with '# ', then shell lines in which D is the engine. Ids, times, random
names and addresses that may differ are made equal before the comparison. Needs an image `busybox` in both engines.
"""
import argparse, os, re, subprocess, sys, tempfile

PRELUDE = r'''
D() { "$ENGINE" "$@"; }

wait_for() { n=0; until eval "$1" >/dev/null 2>&1; do n=$((n+1)); [ $n -gt 100 ] && return 1; sleep 0.1; done; }
'''

def cases(path):
    title, lines = None, []
    for line in open(path):
        if line.startswith("# "):
            if title: yield title, "".join(lines)
            title, lines = line[2:].strip(), []
        elif title:
            lines.append(line)
    if title: yield title, "".join(lines)

def normal(text):
    text = re.sub(r"\b[0-9a-f]{64}\b", "<id64>", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<id12>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d{4}( UTC)?|Z)?", "<time>", text)
    text = re.sub(r"(About a minute|\d+ (seconds?|minutes?)|Less than a second)( ago)?", "<age>", text)
    return text

def run(engine, script, env, work, timeout):
    full = dict(os.environ, ENGINE=engine, **env)
    try:
        done = subprocess.run(["sh", "-c", PRELUDE + script], cwd=work, env=full, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
        return done.returncode, done.stdout.decode("utf8", "replace"), done.stderr.decode("utf8", "replace")
    except subprocess.TimeoutExpired as late:
        return "timeout", (late.stdout or b"").decode("utf8", "replace"), (late.stderr or b"").decode("utf8", "replace")

CLEAN = '''
ids=$(D ps -aq --no-trunc); [ -n "$ids" ] && D rm -f -v $ids >/dev/null 2>&1
v=$(D volume ls -q); [ -n "$v" ] && D volume rm -f $v >/dev/null 2>&1
n=$(D network ls -q --filter type=custom); [ -n "$n" ] && D network rm $n >/dev/null 2>&1
for i in $(D images --format '{{.Repository}}:{{.Tag}}' | grep -v '^busybox:latest$'); do D rmi -f $i >/dev/null 2>&1; done
true
'''

def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--only"); arguments.add_argument("--show-all", action="store_true")
    arguments.add_argument("--cases", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.txt"))
    arguments.add_argument("--timeout", type=float, default=60)
    arguments.add_argument("a"); arguments.add_argument("b")
    given = arguments.parse_args()
    total = differ = 0
    for title, script in cases(given.cases):
        if given.only and not re.search(given.only, title): continue
        total += 1
        results = []
        for engine in (given.a, given.b):
            with tempfile.TemporaryDirectory() as work:
                run(engine, CLEAN, {}, work, 120)
                results.append(run(engine, script, {}, work, given.timeout))
        (ca, oa, ea), (cb, ob, eb) = results
        same = ca == cb and normal(oa) == normal(ob)
        if same and not given.show_all: continue
        differ += not same
        print(f"{'same' if same else 'DIFF'} {title}\n   script: {script.strip()}")
        print(f"   A rc={ca} out={normal(oa)!r}\n           err={ea.strip()!r}")
        print(f"   B rc={cb} out={normal(ob)!r}\n           err={eb.strip()!r}", flush=True)
    print(f"{total - differ} same, {differ} differ, of {total}")

main()
