variables {
  node  = { name = "fra-1", pop = "fra", region = "eu", latitude = 50.11, longitude = 8.68 }
  fleet = { consul = { address = "127.0.0.1:8500" }, key_file = "/etc/anyedge/fleet.key" }
  listeners = [
    { name = "web", address = "192.0.2.1:443", protocols = ["h1", "h2"] },
    { name = "clear", address = "[2001:db8:1::1]:80", clear = true },
  ]
  tls    = { certificates = [{ cert_file = "/etc/anyedge/www.crt", key_file = "/etc/anyedge/www.key" }] }
  routes = [{ match = { host = "shop.example", path = "/api/" }, pool = "api", timeout = "5s" }, { pool = "web" }]
  pools = [
    { name = "api", inventory = "api", health = { path = "/healthz" } },
    { name = "web", backends = [{ address = "10.1.0.4:8080", weight = 2 }] },
  ]
  bgp = {
    asn       = 64512
    router_id = "10.0.1.1"
    prefixes  = ["192.0.2.0/24", "2001:db8:1::/48"]
    next_hop  = { ipv4 = "10.0.1.1", ipv6 = "2001:db8:ffff::1" }
    neighbors = [{ address = "10.0.1.254", asn = 64500, password_file = "/etc/anyedge/bgp.password" }]
  }
}

run "renders_what_was_given" {
  command = plan

  assert {
    condition     = yamldecode(output.config).node.name == "fra-1"
    error_message = "The node is missing."
  }
  assert {
    condition     = yamldecode(output.config).bgp.neighbors[0].password_file == "/etc/anyedge/bgp.password"
    error_message = "The neighbor is missing."
  }
  assert {
    condition     = yamldecode(output.config).routes[0].match.path == "/api/"
    error_message = "The route is missing."
  }
}

run "leaves_out_what_was_not_given" {
  command = plan

  assert {
    condition     = !strcontains(output.config, "null")
    error_message = "A null was rendered."
  }
  assert {
    condition     = !can(yamldecode(output.config).bgp.hold_time) && !can(yamldecode(output.config).pools[1].inventory)
    error_message = "A default was rendered."
  }
}

run "keeps_every_string_as_it_is" {
  command = plan
  variables {
    routes = [{ match = { path = "/a,}{\"b\":null,\"c\":null}" }, pool = "web" }]
  }

  assert {
    condition     = yamldecode(output.config).routes[0].match.path == "/a,}{\"b\":null,\"c\":null}"
    error_message = "A string was changed."
  }
}

run "announces_nothing_without_bgp" {
  command = plan
  variables { bgp = null }

  assert {
    condition     = !can(yamldecode(output.config).bgp)
    error_message = "bgp was rendered."
  }
}

run "refuses_two_stores" {
  command = plan
  variables {
    fleet = { memory = true, consul = { address = "127.0.0.1:8500" }, key_file = "k" }
  }
  expect_failures = [var.fleet]
}

run "refuses_consul_without_a_sealing_key" {
  command = plan
  variables {
    fleet = { consul = { address = "127.0.0.1:8500" } }
  }
  expect_failures = [var.fleet]
}

run "refuses_a_place_off_the_globe" {
  command = plan
  variables {
    node = { name = "fra-1", pop = "fra", region = "eu", latitude = 95, longitude = 8.68 }
  }
  expect_failures = [var.node]
}

run "refuses_to_name_a_single_client" {
  command = plan
  variables {
    measure = { min_clients = 1 }
  }
  expect_failures = [var.measure]
}

run "refuses_an_address_without_a_port" {
  command = plan
  variables {
    listeners = [{ name = "web", address = "192.0.2.1" }]
  }
  expect_failures = [var.listeners]
}

run "refuses_a_route_to_nowhere" {
  command = plan
  variables {
    routes = [{ pool = "nowhere" }]
  }
  expect_failures = [var.routes]
}

run "refuses_a_pool_with_two_sources" {
  command = plan
  variables {
    pools  = [{ name = "web", inventory = "web", backends = [{ address = "10.1.0.4:8080" }] }]
    routes = [{ pool = "web" }]
  }
  expect_failures = [var.pools]
}

run "refuses_host_bits_in_a_prefix" {
  command = plan
  variables {
    bgp = {
      asn       = 64512, router_id = "10.0.1.1", prefixes = ["192.0.2.1/24"], next_hop = { ipv4 = "10.0.1.1" }
      neighbors = [{ address = "10.0.1.254", asn = 64500 }]
    }
  }
  expect_failures = [var.bgp]
}

run "refuses_an_ipv6_prefix_without_a_next_hop" {
  command = plan
  variables {
    bgp = {
      asn       = 64512, router_id = "10.0.1.1", prefixes = ["2001:db8:1::/48"], next_hop = { ipv4 = "10.0.1.1" }
      neighbors = [{ address = "10.0.1.254", asn = 64500 }]
    }
  }
  expect_failures = [var.bgp]
}
