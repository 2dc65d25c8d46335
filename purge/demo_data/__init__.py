"""Invented customers of a referral programme, in any number, the same for the same seed."""

from purge.demo_data.customers import DEMO_CUSTOMERS, make_demo_data
from purge.demo_data.purge_csv import write_purge_csv

__all__ = ["DEMO_CUSTOMERS", "make_demo_data", "write_purge_csv"]
