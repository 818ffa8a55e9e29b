"""What several tests of integrations need."""

from tests.net import net as net
