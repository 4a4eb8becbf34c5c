# Two PoPs of anyedge and one origin, really started on this machine's loopback
# by "terraform apply" and removed by "terraform destroy". No root, no cloud and
# no provider to download: only Terraform's built-in one.

terraform {
  required_version = ">= 1.9.0"
}

locals {
  dir = abspath(coalesce(var.state_dir, "${path.root}/.run"))
}

# Every PoP is an instance of the same pure module; what differs is data.
module "pop" {
  source   = "../../modules/pop"
  for_each = var.pops

  node = {
    name     = "${each.key}-1", pop = each.key, region = each.value.region
    latitude = each.value.latitude, longitude = each.value.longitude
  }
  fleet     = { memory = true }
  listeners = [{ name = "clear", address = "${each.value.address}:${var.port}", clear = true }]
  routes    = [{ pool = "web" }]
  pools = [{
    name     = "web"
    backends = [{ address = var.origin }]
    health   = { path = "/healthz", interval = "500ms", timeout = "400ms" }
  }]
  bgp = {
    asn       = 64512
    router_id = each.value.router_id
    prefixes  = ["192.0.2.0/24"]
    next_hop  = { ipv4 = each.value.address }
    hold_time = "3s"
    # Nobody answers there in this environment: a PoP serves and keeps trying.
    neighbors = [{ address = var.router.address, port = var.router.port, asn = 64500, local_address = each.value.address }]
  }
  health        = { probe_interval = "250ms", rise = 2, hold_down = "1s" }
  drain         = { deprefer = "1s", withdraw = "1s", close = "2s" }
  admin_address = "${each.value.address}:${var.admin_port}"
}

resource "terraform_data" "origin" {
  # A destroy provisioner sees nothing but its own state.
  input = { binary = var.binary, dir = local.dir, scripts = abspath("${path.module}/scripts"), address = var.origin }

  provisioner "local-exec" {
    command     = "\"$SCRIPTS/up\" origin \"$ADDRESS\" origin --address \"$ADDRESS\" --name lab-origin"
    environment = { SCRIPTS = self.input.scripts, BINARY = self.input.binary, DIR = self.input.dir, ADDRESS = self.input.address }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "\"$SCRIPTS/down\" origin"
    environment = { SCRIPTS = self.input.scripts, DIR = self.input.dir }
  }
}

resource "terraform_data" "pop" {
  for_each = var.pops

  # A changed config replaces the PoP that it belongs to, and no other.
  triggers_replace = module.pop[each.key].revision
  input = {
    name    = each.key
    binary  = var.binary
    dir     = local.dir
    scripts = abspath("${path.module}/scripts")
    config  = module.pop[each.key].config
    admin   = "${each.value.address}:${var.admin_port}"
  }

  provisioner "local-exec" {
    command = "mkdir -p \"$DIR\" && printf '%s' \"$CONFIG\" >\"$DIR/$NAME.yaml\" && \"$SCRIPTS/up\" \"$NAME\" \"$ADMIN\" pop --config \"$DIR/$NAME.yaml\""
    environment = {
      SCRIPTS = self.input.scripts, BINARY = self.input.binary, DIR = self.input.dir
      NAME    = self.input.name, CONFIG = self.input.config, ADMIN = self.input.admin
    }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "\"$SCRIPTS/down\" \"$NAME\""
    environment = { SCRIPTS = self.input.scripts, DIR = self.input.dir, NAME = self.input.name }
  }

  depends_on = [terraform_data.origin]
}
