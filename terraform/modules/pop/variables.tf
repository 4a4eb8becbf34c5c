# The inputs mirror the config file of "anyedge pop"; configs/reference/pop.yaml
# in this repository describes every key. What is left out keeps anyedge's
# default.

variable "node" {
  description = "Who and where the node is. Names are unique in the fleet."
  type = object({
    name      = string
    pop       = string
    region    = string
    latitude  = number
    longitude = number
  })
  nullable = false

  validation {
    condition     = alltrue([for s in [var.node.name, var.node.pop, var.node.region] : can(regex("^[A-Za-z0-9][A-Za-z0-9._-]*$", s))])
    error_message = "node.name, node.pop and node.region are letters, digits, \"-\", \"_\" and \".\"."
  }
  validation {
    condition     = abs(var.node.latitude) <= 90 && abs(var.node.longitude) <= 180
    error_message = "node.latitude is -90 to 90 and node.longitude is -180 to 180 degrees."
  }
}

variable "fleet" {
  description = "Where shared state lives: memory (a fleet of one) or Consul. Paths are on the node."
  type = object({
    memory = optional(bool)
    consul = optional(object({
      address    = string
      token_file = optional(string)
      prefix     = optional(string)
      ca_file    = optional(string)
      cert_file  = optional(string)
      key_file   = optional(string)
      datacenter = optional(string)
    }))
    key_file        = optional(string)
    report_interval = optional(string)
    report_ttl      = optional(string)
  })
  nullable = false

  validation {
    condition     = coalesce(var.fleet.memory, false) != (var.fleet.consul != null)
    error_message = "fleet needs exactly one of memory = true and consul."
  }
  validation {
    condition     = var.fleet.consul == null || var.fleet.key_file != null
    error_message = "fleet.key_file is required with consul: secrets are sealed at rest."
  }
}

variable "listeners" {
  description = "The service addresses."
  type = list(object({
    name         = string
    address      = string
    clear        = optional(bool)
    protocols    = optional(list(string))
    trusted_hops = optional(list(string))
    limits = optional(object({
      header_bytes       = optional(string)
      header_fields      = optional(number)
      uri_bytes          = optional(string)
      streams            = optional(number)
      client_connections = optional(number)
      body_rate          = optional(string)
    }))
    timeouts = optional(object({
      handshake = optional(string)
      header    = optional(string)
      idle      = optional(string)
      body_idle = optional(string)
    }))
  }))
  nullable = false

  validation {
    condition     = length(var.listeners) > 0
    error_message = "At least one listener is needed."
  }
  validation {
    condition     = length(distinct(var.listeners[*].name)) == length(var.listeners) && length(distinct(var.listeners[*].address)) == length(var.listeners)
    error_message = "Names and addresses of listeners are unique."
  }
  validation {
    condition     = alltrue([for l in var.listeners : can(regex("^(\\[[0-9a-fA-F:.]+\\]|[0-9.]+):[0-9]{1,5}$", l.address))])
    error_message = "listeners[*].address is \"ip:port\", an IPv6 address in brackets."
  }
  validation {
    condition     = alltrue(flatten([for l in var.listeners : [for p in coalesce(l.protocols, []) : contains(["h1", "h2", "h3"], p)]]))
    error_message = "listeners[*].protocols are h1, h2 and h3."
  }
}

variable "tls" {
  description = "Certificates, by path on the node, and the schedule of session ticket keys."
  type = object({
    certificates   = optional(list(object({ cert_file = string, key_file = string })), [])
    min_version    = optional(string)
    client_ca_file = optional(string)
    tickets = optional(object({
      rotate      = optional(string)
      keep        = optional(number)
      propagation = optional(string)
    }))
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["1.2", "1.3"], coalesce(var.tls.min_version, "1.2"))
    error_message = "tls.min_version is 1.2 or 1.3."
  }
}

variable "routes" {
  description = "Which requests go to which pool."
  type = list(object({
    match         = optional(object({ host = optional(string), path = optional(string) }), {})
    pool          = string
    timeout       = optional(string)
    retries       = optional(object({ attempts = optional(number), budget = optional(string) }))
    hedge         = optional(object({ after = string }))
    server_timing = optional(bool)
    connect       = optional(bool)
  }))
  nullable = false

  validation {
    condition     = length(var.routes) > 0
    error_message = "At least one route is needed."
  }
  validation {
    condition     = alltrue([for r in var.routes : contains(var.pools[*].name, r.pool)])
    error_message = "Every route names one of the pools."
  }
}

variable "pools" {
  description = "Named sets of backends, each from exactly one of backends, inventory and consul."
  type = list(object({
    name    = string
    balance = optional(string)
    backends = optional(list(object({
      address = string
      weight  = optional(number)
      zone    = optional(string)
    })))
    inventory = optional(string)
    consul    = optional(object({ service = string, tag = optional(string) }))
    health = optional(object({
      type     = optional(string)
      path     = optional(string)
      host     = optional(string)
      interval = optional(string)
      timeout  = optional(string)
      rise     = optional(number)
      fall     = optional(number)
    }))
    warm               = optional(number)
    connect_timeout    = optional(string)
    first_byte_timeout = optional(string)
    idle_timeout       = optional(string)
    protocol           = optional(string)
    tls                = optional(object({ server_name = string, ca_file = optional(string) }))
  }))
  nullable = false

  validation {
    condition     = length(var.pools) > 0 && length(distinct(var.pools[*].name)) == length(var.pools)
    error_message = "At least one pool is needed, and names of pools are unique."
  }
  validation {
    condition     = alltrue([for p in var.pools : length([for s in [p.backends, p.inventory, p.consul] : s if s != null]) == 1])
    error_message = "Every pool has exactly one of backends, inventory and consul."
  }
  validation {
    condition     = alltrue([for p in var.pools : contains(["round_robin", "least_request"], coalesce(p.balance, "round_robin"))])
    error_message = "pools[*].balance is round_robin or least_request."
  }
}

variable "bgp" {
  description = "The announcement of the service prefixes. Null announces nothing."
  type = object({
    asn       = number
    router_id = string
    prefixes  = list(string)
    next_hop  = object({ ipv4 = optional(string), ipv6 = optional(string) })
    hold_time = optional(string)
    announce  = optional(object({ med = optional(number), prepend = optional(number), communities = optional(list(string)) }))
    deprefer  = optional(object({ med = optional(number), prepend = optional(number), communities = optional(list(string)) }))
    neighbors = list(object({
      address       = string
      port          = optional(number)
      asn           = number
      local_address = optional(string)
      password_file = optional(string)
      ttl_security  = optional(bool)
    }))
  })
  default = null

  validation {
    condition     = var.bgp == null ? true : alltrue([for p in var.bgp.prefixes : try(cidrhost(p, 0) == split("/", p)[0], false)])
    error_message = "bgp.prefixes are networks without host bits, IPv6 in its shortest form."
  }
  validation {
    condition     = var.bgp == null ? true : alltrue([for a in concat([var.bgp.asn], var.bgp.neighbors[*].asn) : a >= 1 && a <= 4294967294 && floor(a) == a])
    error_message = "AS numbers are whole numbers from 1 to 4294967294."
  }
  validation {
    condition     = var.bgp == null ? true : can(cidrhost("${var.bgp.router_id}/32", 0))
    error_message = "bgp.router_id is an IPv4 address."
  }
  validation {
    condition     = var.bgp == null ? true : length(var.bgp.neighbors) > 0 && length(distinct(var.bgp.neighbors[*].address)) == length(var.bgp.neighbors)
    error_message = "bgp.neighbors has at least one entry, and their addresses are unique."
  }
  validation {
    condition = var.bgp == null ? true : (
      (var.bgp.next_hop.ipv4 != null || alltrue([for p in var.bgp.prefixes : strcontains(p, ":")])) &&
      (var.bgp.next_hop.ipv6 != null || !anytrue([for p in var.bgp.prefixes : strcontains(p, ":")]))
    )
    error_message = "bgp.next_hop has an address of every family that is announced."
  }
}

variable "health" {
  description = "When the node counts as able to serve."
  type = object({
    probe_interval  = optional(string)
    probe_timeout   = optional(string)
    vitals_interval = optional(string)
    vitals_timeout  = optional(string)
    rise            = optional(number)
    fall            = optional(number)
    hold_down       = optional(string)
    hold_down_max   = optional(string)
    flap_memory     = optional(string)
  })
  default  = {}
  nullable = false
}

variable "guard" {
  description = "How much of the fleet may be out at once."
  type = object({
    min_pops = optional(number)
    max_out  = optional(number)
    share    = optional(string)
    window   = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = coalesce(var.guard.max_out, 1) >= 1 && coalesce(var.guard.min_pops, 1) >= 0
    error_message = "guard.max_out is at least 1 and guard.min_pops at least 0."
  }
}

variable "drain" {
  description = "The pace at which the node is taken out of service."
  type = object({
    deprefer = optional(string)
    withdraw = optional(string)
    close    = optional(string)
  })
  default  = {}
  nullable = false
}

variable "measure" {
  description = "What is measured about clients, for the DNS nodes to steer by."
  type = object({
    rtt         = optional(bool)
    min_clients = optional(number)
  })
  default  = {}
  nullable = false

  validation {
    condition     = coalesce(var.measure.min_clients, 8) >= 2 && coalesce(var.measure.min_clients, 8) <= 48
    error_message = "measure.min_clients is within 2 and 48."
  }
}

variable "worker" {
  description = "Bounds of the worker process."
  type = object({
    respawn_grace   = optional(string)
    crash_limit     = optional(number)
    crash_window    = optional(string)
    drain_timeout   = optional(string)
    max_connections = optional(number)
    buffer_memory   = optional(string)
  })
  default  = {}
  nullable = false
}

variable "admin_address" {
  description = "Where the operator's API listens: \"ip:port\", on loopback or a management network."
  type        = string
  default     = "127.0.0.1:8600"
  nullable    = false

  validation {
    condition     = can(regex("^(\\[[0-9a-fA-F:.]+\\]|[0-9.]+):[0-9]{1,5}$", var.admin_address))
    error_message = "admin_address is \"ip:port\", an IPv6 address in brackets."
  }
}

variable "log" {
  description = "The form and level of log lines."
  type = object({
    level    = optional(string)
    format   = optional(string)
    requests = optional(bool)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["debug", "info", "warn", "error"], coalesce(var.log.level, "info")) && contains(["text", "json"], coalesce(var.log.format, "text"))
    error_message = "log.level is debug, info, warn or error; log.format is text or json."
  }
}
