"""How long the units of a plan take on 1 to 16 hosts, by the plan's own estimates.

A host runs one unit at a time, the first of the plan that is ready; reading and writing of files is not counted. The shortest
possible time is that of the longest chain of units that need each other.

usage: units_schedule.py PLAN.json
"""

import heapq
import json
import sys


def makespan(units, hosts):
    """Seconds until all units are done."""
    missing = {unit["id"]: len(unit["needs"]) for unit in units}
    seconds = {unit["id"]: unit["cost"]["seconds"] for unit in units}
    order = {unit["id"]: place for place, unit in enumerate(units)}
    freed = {}
    for unit in units:
        for needed in unit["needs"]:
            freed.setdefault(needed, []).append(unit["id"])
    ready = [order[unit["id"]] for unit in units if not unit["needs"]]
    heapq.heapify(ready)
    running, now = [], 0.0
    while ready or running:
        while ready and len(running) < hosts:
            unit = units[heapq.heappop(ready)]["id"]
            heapq.heappush(running, (now + seconds[unit], unit))
        now, ended = heapq.heappop(running)
        for unit in freed.get(ended, []):
            missing[unit] -= 1
            if missing[unit] == 0:
                heapq.heappush(ready, order[unit])
    return now


def main():
    units = json.load(open(sys.argv[1]))["units"]
    one = makespan(units, 1)
    kinds = {}
    for unit in units:
        kinds.setdefault(unit["kind"], []).append(unit["cost"])
    print("| kind | units | seconds together | largest, seconds | largest, GB |")
    print("|---|---:|---:|---:|---:|")
    for kind, costs in kinds.items():
        times = [cost["seconds"] for cost in costs]
        memory = max(cost["memory_bytes"] for cost in costs) / 1e9
        print(f"| {kind} | {len(costs)} | {sum(times):.0f} | {max(times):.1f} | {memory:.2f} |")
    print("\n| hosts | seconds | speed-up |\n|---:|---:|---:|")
    for hosts in [1, 2, 3, 4, 8, 16, len(units)]:
        time = makespan(units, hosts)
        print(f"| {hosts} | {time:.0f} | {one / time:.2f} |")


main()
