"""From config.json to a composition: blocks with the usual parts, settings that families share, and all other keys."""
