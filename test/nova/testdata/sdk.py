# SPDX-License-Identifier: Apache-2.0
"""What a program with openstacksdk sees of servers and services."""

import openstack
from openstack import exceptions

for cloud in ("token", "password"):
    compute = openstack.connect(cloud=cloud).compute
    compute.default_microversion = "2.72"
    print(cloud)
    for server in sorted(compute.servers(), key=lambda s: s.name):
        print(" ", server.name, server.status, server.host_status, server.compute_host)
    found = compute.find_server("web-2")
    print(" ", found.id, found.name)
    try:
        for service in sorted(compute.services(host="compute-2"), key=lambda s: s.host):
            print(" ", service.host, service.status, service.state, service.is_forced_down)
    except exceptions.HttpException as error:
        print(" ", error.status_code, error.details)
