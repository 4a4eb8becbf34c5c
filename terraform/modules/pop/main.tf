# Pure rendering: no resources, no provider. A driver around this module puts
# the config onto a machine and restarts or reloads the agent when "revision"
# changes.

locals {
  full = {
    node      = var.node
    fleet     = var.fleet
    listeners = var.listeners
    tls       = var.tls
    routes    = var.routes
    pools     = var.pools
    bgp       = var.bgp
    health    = var.health
    guard     = var.guard
    drain     = var.drain
    measure   = var.measure
    worker    = var.worker
    admin     = { address = var.admin_address }
    log       = var.log
  }

  # An attribute that was left out is null in Terraform and absent in anyedge's
  # config. Nulls are taken out of the JSON text: first those after a comma, then
  # those that open an object. Inside a string a quote is escaped, so no value
  # can match.
  later  = replace(jsonencode(local.full), "/,\"[a-z0-9_]+\":null/", "")
  bare   = replace(local.later, "/\\{\"[a-z0-9_]+\":null,?/", "{")
  config = yamlencode(jsondecode(local.bare))
}
