"""What is one trial, how is it run on the cluster, and what is written down of it?"""
