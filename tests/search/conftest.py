import pytest

pytest.register_assert_rewrite("algorithm_contract")
