module example.org/leasehold

go 1.19
