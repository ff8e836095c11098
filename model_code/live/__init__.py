"""The live path without sockets: messages in, decisions out, nothing lost without a count."""
